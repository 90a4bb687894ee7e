class LlamaRunnerClient {
  constructor(baseUrl = 'http://localhost:1234') {
    this.baseUrl = baseUrl;
  }

  async chat(model, messages, options = {}) {
    const response = await fetch(`${this.baseUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
      },
      body: JSON.stringify({
        model,
        messages,
        ...options
      })
    });
    
    return await response.json();
  }

  async transcribeAudio(file, model = 'whisper-base') {
    const formData = new FormData();
    formData.append('file', file);
    formData.append('model', model);
    
    const response = await fetch(`${this.baseUrl}/v1/audio/transcriptions`, {
      method: 'POST',
      body: formData
    });
    
    return await response.json();
  }

  async getModels() {
    const response = await fetch(`${this.baseUrl}/v1/models`);
    return await response.json();
  }
}

// Usage
const client = new LlamaRunnerClient();

// Chat
const chatResult = await client.chat('qwen2.5-7b-instruct', [
  { role: 'user', content: 'Hello!' }
]);

// Audio transcription
const audioFile = document.getElementById('audio-input').files[0];
const transcription = await client.transcribeAudio(audioFile);
