export interface ChatMessage {
  role: "system" | "user" | "assistant" | "tool";
  content: string | null; // Content can be null for some assistant messages with tool_calls
  name?: string;          // Optional: For 'tool' role, the name of the tool.
                          // For 'assistant' role with tool_calls, can be the function name.
  tool_calls?: ToolCall[]; // Optional: For 'assistant' role if it decides to call tools.
  tool_call_id?: string;  // Optional: For 'tool' role, the ID of the tool call being responded to.
}

export interface ToolCall {
  id: string;
  type: "function";
  function: {
    name: string;
    arguments: string; // JSON string of arguments
  };
}

export interface ChatCompletionRequest {
  model: string;                 // Model ID, though LM Studio uses the currently loaded one.
  messages: ChatMessage[];
  temperature?: number;          // Range: 0.0 to 2.0
  max_tokens?: number;
  top_p?: number;                // Range: 0.0 to 1.0
  stream?: boolean;              // Default: false
  stop?: string | string[] | null;
  presence_penalty?: number;     // Range: -2.0 to 2.0
  frequency_penalty?: number;    // Range: -2.0 to 2.0
  // n?: number;                 // How many chat completion choices to generate (LM Studio might only support 1)
  // tools?: Tool[];             // For function calling
  // tool_choice?: "none" | "auto" | { type: "function"; function: { name: string } }; // For function calling
  // logit_bias?: Record<string, number>; // Modify likelihood of specified tokens
  // user?: string;              // A unique identifier representing your end-user
}

// If using function calling (tools):
// export interface Tool {
//   type: "function";
//   function: {
//     name: string;
//     description?: string;
//     parameters: object; // JSON Schema object
//   };
// }

export interface ChatCompletionChoice {
  index: number;
  message: ChatMessage; // The assistant's response message
  finish_reason: "stop" | "length" | "tool_calls" | "content_filter" | null;
  // logprobs?: any; // If logprobs were requested (not commonly supported by LM Studio)
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export interface ChatCompletionResponse {
  id: string;
  object: "chat.completion";
  created: number;               // Unix timestamp
  model: string;                 // Model name used
  choices: ChatCompletionChoice[];
  usage?: Usage;                 // Optional: Token usage statistics
  // system_fingerprint?: string; // OpenAI specific, might not be present
}

async function getChatCompletion(
  messages: ChatMessage[],
  modelName: string = "loaded-model" // Placeholder
): Promise<ChatCompletionResponse | null> {
  const requestBody: ChatCompletionRequest = {
    model: modelName,
    messages: messages,
    temperature: 0.7,
    max_tokens: 250,
    stream: false,
  };

  try {
    const response = await fetch("http://localhost:1234/v1/chat/completions", {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
      },
      body: JSON.stringify(requestBody),
    });

    if (!response.ok) {
      console.error("Error fetching chat completion:", response.status, await response.text());
      return null;
    }
    const data: ChatCompletionResponse = await response.json();
    console.log("Assistant:", data.choices[0]?.message.content);
    return data;
  } catch (error) {
    console.error("Failed to fetch chat completion:", error);
    return null;
  }
}

// Example call
// getChatCompletion([
//   { role: "system", content: "You are a helpful assistant." },
//   { role: "user", content: "Tell me a joke." }
// ]);
