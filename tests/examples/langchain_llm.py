from langchain.llms.base import LLM
from langchain.callbacks.manager import CallbackManagerForLLMRun
from typing import Optional, List, Any
import requests

class LlamaRunnerLLM(LLM):
    base_url: str = "http://localhost:1234/v1"
    model: str = "qwen2.5-7b-instruct"
    
    def _call(
        self,
        prompt: str,
        stop: Optional[List[str]] = None,
        run_manager: Optional[CallbackManagerForLLMRun] = None,
    ) -> str:
        response = requests.post(
            f"{self.base_url}/v1/chat/completions",
            json={
                "model": self.model,
                "messages": [{"role": "user", "content": prompt}],
                "stop": stop
            }
        )
        return response.json()['choices'][0]['message']['content']
    
    @property
    def _identifying_params(self) -> dict:
        return {"model": self.model}
    
    @property
    def _llm_type(self) -> str:
        return "llama-runner"

# Usage
llm = LlamaRunnerLLM()
result = llm("Tell me a joke")
