"""Unsupervised SimCSE: teach an encoder that a text is like itself and unlike others, without any labels.

LLM2Vec's second stage (arXiv 2404.05961, section 2.2 and appendix D.1.2; SimCSE is arXiv 2104.08821). Each sentence passes
twice, under different attention dropout, and has to find itself again among the sentences of its batch.

    # one GPU: Mistral-7B as published, from what mntp.py left, about 3 hours on an A100
    python training_scripts/simcse.py --config training_scripts/configs/llm2vec_mistral_7b_unsupervised.yaml \
        --model runs/mistral-mntp --output runs/mistral-simcse

    # many GPUs: 128 sentences in a step as published, 16 on each of 8, each a negative of all others
    accelerate launch --config_file training_scripts/accelerate/ddp.yaml --num_processes 8 training_scripts/simcse.py \
        --config training_scripts/configs/llm2vec_mistral_7b_unsupervised.yaml \
        --model runs/mistral-mntp --output runs/mistral-simcse --set training.per_device_train_batch_size=16

    # a tiny run on a CPU, with what the package brings along: seconds, and it teaches nothing
    python training_scripts/simcse.py --tiny --output runs/tiny-simcse

    # your own encoder and sentences
    python training_scripts/simcse.py --model runs/mine --output runs/mine-simcse --set data=sentences.txt

The same command again continues an interrupted run. Set mini_batch_size where memory does not hold a batch.
"""

from __future__ import annotations

from accelerate import PartialState
from command_line import read_command_line
from sentence_transformers import SentenceTransformerTrainer

from st_llm2vec.losses import SimCSELoss


def main() -> None:
    # 1. Settings. The folder keeps them, so that it never mixes two runs.
    [stage] = read_command_line(__doc__, "simcse")
    if not stage.begin():
        print(f"{stage.output} holds the finished run.")
        return

    # 2. The encoder that an earlier stage left (or a decoder, converted), the sentences, and a fresh adapter.
    encoder = stage.start()
    data = stage.read(encoder)
    stage.attach(encoder)

    # 3. What it learns by: two passes of a batch under dropout, each text against all others.
    loss = SimCSELoss(
        encoder,
        stage.scale,
        stage.attention_dropout,
        stage.hidden_dropout,
        gather_across_devices=stage.gather_across_devices,
        mini_batch_size=stage.mini_batch_size,
    )
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
