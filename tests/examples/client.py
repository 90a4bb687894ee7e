import requests
import json

# Chat completion
response = requests.post('http://localhost:1234/v1/chat/completions', json={
    'model': 'qwen2.5-7b-instruct',
    'messages': [
        {'role': 'user', 'content': 'Hello!'}
    ]
})

result = response.json()
print(result['choices'][0]['message']['content'])

# Audio transcription
with open('audio.mp3', 'rb') as f:
    files = {'file': f}
    data = {'model': 'whisper-base'}
    response = requests.post(
        'http://localhost:1234/v1/audio/transcriptions',
        files=files,
        data=data
    )
    result = response.json()
    print(result['text'])
