# Include API key in requests
curl -H "Authorization: Bearer YOUR_API_KEY" \
  http://localhost:1234/v1/models
