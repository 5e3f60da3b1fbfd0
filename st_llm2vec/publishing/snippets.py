"""How to use a published encoder, as code that runs."""

from __future__ import annotations

import json

from st_llm2vec.encoder import TextEncoder

QUERY = "How is a violin made?"
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
    """LangChain's stock class."""
    arguments = [f"model_name={_quote(repo_id)}"]
    if custom:
        arguments.append('model_kwargs={"trust_remote_code": True}')
    document, query = encoder.prompts.get("document"), encoder.prompts.get("query")
    if document:
        arguments.append('encode_kwargs={"prompt_name": "document"}')
    if query or document:
        arguments.append(f'query_encode_kwargs={{"prompt_name": {_quote("query") if query else "None"}}}')
    return f"""from langchain_huggingface import HuggingFaceEmbeddings

embeddings = HuggingFaceEmbeddings({_lines(arguments)})
query = embeddings.embed_query({_quote(QUERY)})
documents = embeddings.embed_documents({_documents()})
"""


def llama_index_snippet(encoder: TextEncoder, repo_id: str, custom: bool) -> str:
    """LlamaIndex's stock class, which puts its own prompts in the place of the saved ones."""
    arguments = [f"model_name={_quote(repo_id)}"]
    if custom:
        arguments.append("trust_remote_code=True")
    for ours, theirs in (("query", "query_instruction"), ("document", "text_instruction")):
        prompt = encoder.prompts.get(ours)
        if prompt:
            arguments.append(f"{theirs}={_quote(prompt)}")
    return f"""from llama_index.embeddings.huggingface import HuggingFaceEmbedding

embedding = HuggingFaceEmbedding({_lines(arguments)})
query = embedding.get_query_embedding({_quote(QUERY)})
documents = embedding.get_text_embedding_batch({_documents()})
"""


def _documents() -> str:
    return "[\n" + "".join(f"    {_quote(text)},\n" for text in DOCUMENTS) + "]"


def _lines(arguments: list[str]) -> str:
    return "\n" + "".join(f"    {one},\n" for one in arguments)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
