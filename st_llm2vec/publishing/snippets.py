"""How to use a published encoder, as code that runs."""

from __future__ import annotations

import json

from st_llm2vec.encoding.text_reader import PROMPT_NAMES
from st_llm2vec.folder.encoder import TextEncoder

QUERY = "How is a violin made?"
OWN_INSTRUCTION = (
    ' An instruction of your own goes in `prompt=` and ends in a blank: `model.encode(texts, prompt="Find it: ")`. '
    "One for each text, `[instruction, text]`, needs `st_llm2vec.load`: Sentence Transformers alone reads these as sentence "
    "pairs, without saying so, and gives other vectors."
)
DOCUMENTS = ["A violin is carved from spruce and maple.", "The compass needle points to the north."]


def sentence_transformers_snippet(encoder: TextEncoder, repo_id: str, custom: bool) -> str:
    """Plain Sentence Transformers."""
    trust = ", trust_remote_code=True" if custom else ""
    return f"""from sentence_transformers import SentenceTransformer

model = SentenceTransformer({_quote(repo_id)}{trust})
queries = model.encode_query([{_quote(QUERY)}])
documents = model.encode_document({_documents()})
print(model.similarity(queries, documents))
"""


def own_snippet(encoder: TextEncoder, repo_id: str) -> str:
    """This package, which needs no trust."""
    return f"""import st_llm2vec

model = st_llm2vec.load({_quote(repo_id)})
queries = model.encode_query([{_quote(QUERY)}])
"""


def langchain_snippet(encoder: TextEncoder, repo_id: str, custom: bool) -> str:
    """LangChain's stock class, which calls ``encode`` for queries and documents alike, and so knows no prompt."""
    arguments = [f"model_name={_quote(repo_id)}"]
    if custom:
        arguments.append('model_kwargs={"trust_remote_code": True}')
    document, query = document_prompt_name(encoder), encoder.prompts.get("query")
    if document:
        arguments.append(f'encode_kwargs={{"prompt_name": {_quote(document)}}}')
    if query or document:
        arguments.append(f'query_encode_kwargs={{"prompt_name": {_quote("query") if query else "None"}}}')
    return f"""from langchain_huggingface import HuggingFaceEmbeddings

embeddings = HuggingFaceEmbeddings({_lines(arguments)})
query = embeddings.embed_query({_quote(QUERY)})
documents = embeddings.embed_documents({_documents()})
"""


def langchain_adapter_snippet(repo_id: str) -> str:
    """This project's class for LangChain, which leaves texts as they are and takes the saved prompts."""
    return f"""from langchain_st_llm2vec import STLLM2VecEmbeddings

embeddings = STLLM2VecEmbeddings(model={_quote(repo_id)})
"""


def llama_index_snippet(encoder: TextEncoder, repo_id: str, custom: bool) -> str:
    """LlamaIndex's stock class, which puts its own prompts in the place of the saved ones."""
    arguments = [f"model_name={_quote(repo_id)}"]
    if custom:
        arguments.append("trust_remote_code=True")
    for ours, theirs in (("query", "query_instruction"), (document_prompt_name(encoder), "text_instruction")):
        prompt = encoder.prompts.get(ours or "")
        if prompt:
            arguments.append(f"{theirs}={_quote(prompt)}")
    return f"""from llama_index.embeddings.huggingface import HuggingFaceEmbedding

embedding = HuggingFaceEmbedding({_lines(arguments)})
query = embedding.get_query_embedding({_quote(QUERY)})
documents = embedding.get_text_embedding_batch({_documents()})
"""


def document_prompt_name(encoder: TextEncoder) -> str | None:
    """The name of the prompt that ``encode_document`` takes; ``None`` if that is none, or empty."""
    name = next((one for one in PROMPT_NAMES["document"] if one in encoder.prompts), None)
    return name if name is not None and encoder.prompts[name] else None


def _documents() -> str:
    return "[\n" + "".join(f"    {_quote(text)},\n" for text in DOCUMENTS) + "]"


def _lines(arguments: list[str]) -> str:
    return "\n" + "".join(f"    {one},\n" for one in arguments)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
