"""The public Python API: studies, confirmations and a scikit-learn estimator as objects, over `hpo.service`."""

import warnings

# Optuna imports tqdm, which warns in notebooks without ipywidgets; hpo shows progress without either.
warnings.filterwarnings("ignore", message="IProgress not found")
