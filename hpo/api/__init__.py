"""The public Python API: studies, confirmations and a scikit-learn estimator as objects, over `hpo.service`."""
