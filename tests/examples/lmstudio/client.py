from openai import OpenAI

client = OpenAI(
    base_url="http://100.65.29.44:1234/v1",  # ALPHA
    api_key="not-needed"
)

response = client.chat.completions.create(
    model="glm-4.6v-flash",
    messages=[{"role": "user", "content": "Hello!"}]
)

print(response.choices[0].message.content)
