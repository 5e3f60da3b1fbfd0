"""An encoder behind an OpenAI-compatible endpoint, /v1/embeddings, with LitServe: what ``st-llm2vec serve`` starts.

OpenAI's interface does not tell a query from a document, and encoders do. Here the name of the model does: "query" has
the encoder's saved query prompt, and "document", or the encoder's own name, its document prompt. ``input_type``, where a
client sends one, is "query" or "document" too.

    from openai import OpenAI
    client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    client.embeddings.create(model="query", input=["How is a violin made?"])
    client.embeddings.create(model="document", input=["A violin is carved from spruce and maple."])
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, cast

import litserve
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from litserve.specs.openai_embedding import EmbeddingRequest, EmbeddingResponse
from pydantic import AfterValidator, Field

from st_llm2vec.encoding.inputs import require_unicode
from st_llm2vec.folder.load import load

TASKS = ("query", "document")


def of_characters(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can hold."""
    require_unicode(text, "a text")
    return text


Text = Annotated[str, Field(strict=True), AfterValidator(of_characters)]


class EncodingRequest(EmbeddingRequest):
    """OpenAI's request, and whether the texts are queries or documents. Token ids are not taken."""

    input: Text | Annotated[list[Text], Field(min_length=1)]
    dimensions: int | None = Field(default=None, ge=1)
    input_type: Literal["query", "document"] | None = None


class EncodingSpec(litserve.OpenAIEmbeddingSpec):
    """OpenAI's interface, whose requests are checked before anything is encoded."""

    async def embeddings_endpoint(self, request: EncodingRequest) -> EmbeddingResponse:
        """Answer a request; FastAPI reads its type here."""
        return await super().embeddings_endpoint(request)


class Encoder(litserve.LitAPI):
    """An encoder in a worker.

    Args:
        name: A folder, or a name on the Hugging Face Hub.
    """

    def __init__(self, name: str) -> None:
        super().__init__(spec=EncodingSpec())
        self.name = name

    def setup(self, device: str) -> None:
        """Load the encoder in the worker."""
        self.encoder = load(self.name, device=device)

    def decode_request(self, request: EncodingRequest, context: dict[str, Any]) -> list[str]:
        """The texts, and what they are.

        Raises:
            HTTPException: 400, if the encoder has no so many dimensions, or there is no such model.
        """
        texts = [request.input] if isinstance(request.input, str) else list(request.input)
        width = self.encoder.get_embedding_dimension()
        if request.dimensions is not None and width is not None and request.dimensions > width:
            raise HTTPException(400, f"dimensions={request.dimensions}: the encoder's vectors have {width}.")
        context["task"] = task_of(request.model, request.input_type, self.name)
        context["truncate_dim"] = request.dimensions
        return texts

    def predict(self, texts: list[str], context: dict[str, Any]) -> dict[str, Any]:
        """Encode them, and count the tokens that are read: the prompt's too, and not those that are cut."""
        encode = getattr(self.encoder, f"encode_{context['task']}")
        shortened = context["truncate_dim"] is not None
        vectors = encode(texts, truncate_dim=context["truncate_dim"], normalize_embeddings=shortened).tolist()
        prompt = self.encoder.saved_instruction(task=context["task"])
        tokens = int(self.encoder.preprocess(texts, prompt=prompt)["attention_mask"].sum())
        return {"embeddings": vectors, "prompt_tokens": tokens, "total_tokens": tokens}

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """It is what the interface wants already."""
        return output


def task_of(model: str, input_type: str | None, name: str) -> str:
    """Whether the texts are queries or documents.

    Raises:
        HTTPException: 400, if there is no model of this name.
    """
    if input_type is not None:
        return input_type
    if model in TASKS:
        return model
    if model == name:
        return "document"
    raise HTTPException(
        400, f"There is no model {model!r}; 'query', 'document' and {name!r}, for documents, are served."
    )


def build_server(encoder: str, accelerator: str = "auto") -> litserve.LitServer:
    """A server that answers with an encoder's vectors.

    Args:
        encoder: A folder, or a name on the Hugging Face Hub.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """
    # Without a limit a request waits for a large one before it; after LitServe's it would be refused unread.
    server = litserve.LitServer(Encoder(encoder), accelerator=accelerator, workers_per_device=1, timeout=False)
    server.app.add_exception_handler(RequestValidationError, refuse)
    server.app.get("/v1/models")(partial(list_models, encoder))
    return server


def list_models(name: str) -> dict[str, Any]:
    """OpenAI's list of the models that a request can name, for an encoder of this name."""
    model = {"object": "model", "created": 0, "owned_by": "st-llm2vec"}
    return {"object": "list", "data": [{"id": one, **model} for one in (*TASKS, name)]}


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Say what of a request is wrong, without repeating it: not every input can be written as JSON."""
    found = cast("RequestValidationError", error).errors()
    said = "; ".join(dict.fromkeys(f"{'.'.join(map(str, one['loc'][1:2]))}: {one['msg']}" for one in found))
    return JSONResponse({"detail": said}, 400)
