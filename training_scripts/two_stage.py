"""Two-stage instruction tuning: retrieval with in-batch negatives first, then all tasks blended, without them.

NV-Embed (arXiv 2405.17428, section 3.3). In retrieval another row's document is a good negative; in classification,
clustering and similarity it may well be a positive too. So the first stage learns retrieval alone, and the second mixes
all tasks in every batch, where each row has its own instruction and is told from its own hard negatives only.

    # one GPU: Mistral-7B; 128 rows in a step as published, 8 texts at a time
    python training_scripts/two_stage.py --config training_scripts/configs/nv_embed_v2.yaml --output runs/nv-embed \
        --set training.per_device_train_batch_size=128 --set mini_batch_size=8

    # many GPUs: 16 rows on each of 8
    accelerate launch --config_file training_scripts/accelerate/ddp.yaml --num_processes 8 training_scripts/two_stage.py \
        --config training_scripts/configs/nv_embed_v2.yaml --output runs/nv-embed

    # a tiny run on a CPU, with what the package brings along: seconds, and it teaches nothing
    python training_scripts/two_stage.py --tiny --output runs/tiny-nv-embed

The first stage's encoder goes to <output>-stages/1-retrieval, the second's to the output. The same command again continues
an interrupted run, in the stage where it was.
"""

from __future__ import annotations

from accelerate import PartialState
from command_line import read_command_line
from sentence_transformers import SentenceTransformerTrainer

from st_llm2vec.training import Stage


def main() -> None:
    # 1. Settings: two stages, of which the second starts from the first one's folder.
    for stage in read_command_line(__doc__, "retrieval", "blended"):
        train(stage)


def train(stage: Stage) -> None:
    if not stage.begin():
        print(f"{stage.output} holds the finished stage.")
        return

    # 2. The decoder with latent attention, or what the first stage left; the datasets; and a fresh adapter.
    encoder = stage.start()
    data = stage.read(encoder)
    stage.attach(encoder)

    # 3. What it learns by: HardNegativesRankingLoss, cached with a mini_batch_size. In the second stage each row says for
    #    itself whether others' documents are its negatives; they are not.
    loss = stage.loss(encoder, data)
    evaluator = stage.evaluator(encoder, loss)

    # 4. The stock trainer, with an optimizer of its own.
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
