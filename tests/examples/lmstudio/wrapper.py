import requests

# Simple text completion
response = requests.post(
    "http://localhost:8009/api/lmstudio/completions",
    json={
        "prompt": "Once upon a time",
        "temperature": 0.7,
        "max_tokens": 512
    }
)
print(response.json()["text"])
