curl http://localhost:1234/v1/models \
  -H "Authorization: Bearer any-value"
