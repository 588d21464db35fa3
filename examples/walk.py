"""The learning note's whole walk: look, train, save, reload, predict, test, export, report.

python examples/walk.py                   CIFAR-10 as in the note: 5 epochs
python examples/walk.py digits            handwritten digits: a few seconds, no download
python examples/walk.py cifar10 simple    another recipe; a folder of class folders works as data, too
"""

import sys

import fovea

data = sys.argv[1] if len(sys.argv) > 1 else "cifar10"
recipe = sys.argv[2] if len(sys.argv) > 2 else "tutorial" if data == "cifar10" else "simple"
dataset = fovea.load_data(data)
run = fovea.train(dataset, recipe)  # no `if __name__ == "__main__"`: there are no worker processes
test = dataset.splits["test"]
for label, answer in zip(test.labels[:4], fovea.load(run).predict(test.images[:4]), strict=True):
    print(f"truth: {dataset.classes[label]:8}  prediction: {answer.prediction:8}  {answer.probability:.1%}")
print(f"test accuracy: {fovea.evaluate(run)['accuracy']:.2%}", fovea.export(run), fovea.report(run), sep="\n")
