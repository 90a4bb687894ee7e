# Image is a small red square encoded as a base64 data URL
curl http://localhost:1234/api/v1/chat \
-H "Authorization: Bearer $LM_API_TOKEN" \
-H "Content-Type: application/json" \
-d '{
"model": "qwen/qwen3-vl-4b",
"input": [
{
"type": "text",
"content": "Describe this image in two sentences"
},
{
"type": "image",
"data_url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
}
],
"context_length": 2048,
"temperature": 0
}'
