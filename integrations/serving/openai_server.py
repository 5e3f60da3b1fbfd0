"""Serve an encoder behind an OpenAI-compatible endpoint, /v1/embeddings, with LitServe.

    pip install sentence-transformers litserve
    python openai_server.py my-encoder --port 8000

OpenAI's interface does not tell a query from a document, and encoders do. Here the name of the model does: "query" has
the encoder's saved query prompt, and anything else its document prompt.

    from openai import OpenAI
    client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    client.embeddings.create(model="query", input=["How is a violin made?"])
    client.embeddings.create(model="document", input=["A violin is carved from spruce and maple."])
"""

from __future__ import annotations

import argparse
from typing import Any

import litserve
from fastapi import HTTPException
from litserve.specs.openai_embedding import EmbeddingRequest
from sentence_transformers import SentenceTransformer


class Encoder(litserve.LitAPI):
    """A portable encoder, loaded by plain Sentence Transformers; for a custom one, use ``st_llm2vec.load``."""

    def __init__(self, name: str) -> None:
        super().__init__(spec=litserve.OpenAIEmbeddingSpec())
        self.name = name

    def setup(self, device: str) -> None:
        """Load the encoder in the worker."""
        self.encoder = SentenceTransformer(self.name, device=device)

    def decode_request(self, request: EmbeddingRequest, context: dict[str, Any]) -> list[str]:
        """The texts, and what they are."""
        texts = [request.input] if isinstance(request.input, str) else request.input
        if not all(isinstance(text, str) for text in texts):
            raise HTTPException(400, "Texts are expected; token ids are not taken.")
        context["encode"] = "encode_query" if request.model == "query" else "encode_document"
        context["truncate_dim"] = request.dimensions
        return texts

    def predict(self, texts: list[str], context: dict[str, Any]) -> dict[str, Any]:
        """Encode them, and count their tokens."""
        encode = getattr(self.encoder, context["encode"])
        tokens = sum(map(len, self.encoder.tokenizer(texts)["input_ids"]))
        vectors = encode(texts, truncate_dim=context["truncate_dim"]).tolist()
        return {"embeddings": vectors, "prompt_tokens": tokens, "total_tokens": tokens}

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """It is what the interface wants already."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="a folder, or a name on the Hugging Face Hub")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, cuda or mps")
    given = parser.parse_args()
    server = litserve.LitServer(Encoder(given.encoder), accelerator=given.accelerator, workers_per_device=1)
    server.run(port=given.port, generate_client_file=False)
