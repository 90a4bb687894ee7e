import openai

client = openai.OpenAI(
    base_url="http://localhost:1234/v1",
    api_key="sk-dummy"  # Not used but required
)

# Chat completion
completion = client.chat.completions.create(
    model="qwen2.5-7b-instruct",
    messages=[
        {"role": "user", "content": "Hello!"}
    ]
)

print(completion.choices[0].message.content)
