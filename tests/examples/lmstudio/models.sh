curl http://100.65.29.44:1234/v1/models | jq '.data[].id'
