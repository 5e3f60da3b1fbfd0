"""Supervised contrastive training: a query, what answers it, and what seems to.

LLM2Vec's supervised stage (arXiv 2404.05961, section 5 and appendix G); with other settings E5-Mistral (arXiv 2401.00368)
and fine-tuned Echo embeddings (arXiv 2402.15449). Every batch comes from one dataset, with its instruction before the
queries; the other rows' documents and a hard negative are what the positive is told from.

    # one GPU: Llama-3-8B from what mntp.py left; 512 rows in a step as published, 8 texts at a time
    python training_scripts/supervised.py --config training_scripts/configs/llm2vec_llama3_8b_supervised.yaml \
        --model runs/llama3-mntp --output runs/llama3-supervised \
        --set training.per_device_train_batch_size=512 --set mini_batch_size=8

    # many GPUs: as published, 64 rows on each of 8
    accelerate launch --config_file training_scripts/accelerate/ddp.yaml --num_processes 8 training_scripts/supervised.py \
        --config training_scripts/configs/llm2vec_llama3_8b_supervised.yaml \
        --model runs/llama3-mntp --output runs/llama3-supervised

    # a tiny run on a CPU, with what the package brings along: seconds, and it teaches nothing
    python training_scripts/supervised.py --tiny --output runs/tiny-supervised

    # your own encoder and pairs: columns query, positive and, if there are any, negative
    python training_scripts/supervised.py --model runs/mine --output runs/mine-supervised \
        --set data.path=pairs.jsonl --set "data.query_instruction=Find the answer to the question:"

The same command again continues an interrupted run.
"""

from __future__ import annotations

from accelerate import PartialState
from command_line import read_command_line
from sentence_transformers import SentenceTransformerTrainer


def main() -> None:
    # 1. Settings. The folder keeps them, so that it never mixes two runs.
    [stage] = read_command_line(__doc__, "supervised")
    if not stage.begin():
        print(f"{stage.output} holds the finished run.")
        return

    # 2. The encoder that an earlier stage left (or a decoder, converted), the datasets with their instructions, and a
    #    fresh adapter.
    encoder = stage.start()
    data = stage.read(encoder)
    stage.attach(encoder)

    # 3. What it learns by: HardNegativesRankingLoss, cached with a mini_batch_size. Where the datasets differ in whether
    #    other rows' documents are negatives, there is one for each.
    loss = stage.loss(encoder, data)
    evaluator = stage.evaluator(encoder, loss)

    # 4. The stock trainer.
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=stage.arguments(data, evaluator),
        train_dataset=data.dataset,
        loss=loss,
        evaluator=evaluator,
        callbacks=stage.callbacks(),
    )

    # 5. Continue from the last checkpoint if there is one; merge the adapter, note what was trained on what, and save.
    stage.train(trainer, data)
    if PartialState().is_main_process:
        print(f"The encoder is in {stage.output}.")


if __name__ == "__main__":
    main()
