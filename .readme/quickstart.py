"""Draw the README's picture from the tables of the quickstart.

foldgrid run configs/quickstart.yaml
pip install pandas matplotlib
python .readme/quickstart.py results/quickstart .readme/quickstart.png
"""

import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

tables = Path(sys.argv[1]) / "tables"
epochs = pd.read_csv(tables / "epochs.csv")
trials = pd.read_csv(tables / "trials.csv").drop_duplicates("configuration")
names = {
    row["configuration"]: row["model.name"]
    + ("" if pd.isna(row["model.heads"]) else f", heads {row['model.heads']:.0f}")
    for _, row in trials.iterrows()
}
# Okabe and Ito's colours, told apart by the colour-blind too.
colours = dict(zip(names, ("#0072B2", "#D55E00", "#009E73"), strict=True))

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for configuration, rows in epochs.groupby("configuration", sort=False):
    colour = colours[configuration]
    for _, fold in rows.groupby("fold"):
        axes.plot(fold["epoch"], fold["val_accuracy"], color=colour, alpha=0.35, linewidth=1)
    mean = rows.groupby("epoch")["val_accuracy"].mean()
    axes.plot(mean.index, mean, color=colour, linewidth=2.5, label=names[configuration])
axes.axhline(0.1, color="0.5", linestyle=":", label="chance")
axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1))
axes.set_title("quickstart: mean over validation folds 2 and 3 (thin: each fold)", fontsize=10)
axes.legend(frameon=False, loc="lower right", fontsize=9)
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(sys.argv[2], dpi=130)
