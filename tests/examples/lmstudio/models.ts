interface Model {
  id: string;         // Identifier of the model (often the filename or a configured alias)
  object: "model";
  created: number;    // Unix timestamp of when the model was created/loaded
  owned_by: string;   // Typically "LM Studio" or the organization if known
}

interface ModelsListResponse {
  object: "list";
  data: Model[];
}

async function getLoadedModel(): Promise<ModelsListResponse | null> {
  try {
    const response = await fetch("http://localhost:1234/v1/models");
    if (!response.ok) {
      console.error("Error fetching models:", response.status, await response.text());
      return null;
    }
    const data: ModelsListResponse = await response.json();
    console.log("Loaded model:", data.data[0]?.id);
    return data;
  } catch (error) {
    console.error("Failed to fetch models:", error);
    return null;
  }
}
