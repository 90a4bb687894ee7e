curl http://100.65.29.44:1234/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{
    "model": "glm-4.6v-flash",
    "messages": [{"role": "user", "content": "What is 2+2?"}]
  }'
