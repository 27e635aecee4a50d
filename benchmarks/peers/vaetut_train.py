"""`vaetut.train`, as users call it: it runs in a thread, and waits at the end of each epoch."""

import threading
from typing import Any

import torch
from protocol import serve

import vaetut


def make(x: Any, test: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Let one call of `vaetut.train` go through epoch after epoch."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    model = vaetut.VAE(x.shape[1], settings["latent_dim"], settings["hidden_dim"])
    go, done = threading.Semaphore(0), threading.Semaphore(0)
    problems = []

    def end_of_epoch(history: Any) -> None:
        done.release()
        go.acquire()

    def train() -> None:
        try:
            vaetut.train(
                model,
                torch.from_numpy(x),
                epochs=10**6,
                batch_size=settings["batch_size"],
                binarize="none",  # the images are black and white already
                compile=settings["compile"],
                device=settings["device"],
                on_epoch=end_of_epoch,
            )
        except BaseException as error:
            problems.append(error)
            done.release()

    thread = threading.Thread(target=train, daemon=True)

    def epoch() -> None:
        if thread.is_alive():
            go.release()
        else:
            thread.start()
        done.acquire()
        if problems:
            raise problems[0]

    def elbo() -> float:
        with torch.no_grad():
            images = torch.from_numpy(test).to(settings["device"])
            return vaetut.sgvb_b(model, model.encode(images), images, 10).mean().item()

    return epoch, elbo


serve(make)
