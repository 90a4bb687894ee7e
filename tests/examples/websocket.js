const ws = new WebSocket('ws://localhost:1234/v1/ws');

ws.onmessage = function(event) {
  const data = JSON.parse(event.data);
  console.log('Received:', data);
};

// Send message
ws.send(JSON.stringify({
  type: 'chat_message',
  model: 'qwen2.5-7b-instruct',
  message: 'Hello!'
}));
