"""Find which neurons of a language model carry a feature, how few are enough, and how sure you can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_probing.activations.extract import extract as extract
    from sparse_probing.activations.extract import find_units as find_units
    from sparse_probing.activations.models import load_model as load_model
    from sparse_probing.activations.models import wrap_model as wrap_model
    from sparse_probing.config import RunConfig as RunConfig
    from sparse_probing.config import VerifyConfig as VerifyConfig
    from sparse_probing.datasets.conllu import read_conllu as read_conllu
    from sparse_probing.datasets.dataset_folder import read_dataset_folder as read_dataset_folder
    from sparse_probing.datasets.dataset_folder import write_dataset_folder as write_dataset_folder
    from sparse_probing.datasets.labelled_text import Document as Document
    from sparse_probing.datasets.labelled_text import LabelledText as LabelledText
    from sparse_probing.datasets.labelled_text import Span as Span
    from sparse_probing.datasets.labelled_text import document_level_text as document_level_text
    from sparse_probing.datasets.own_labels import labelled_by as labelled_by
    from sparse_probing.datasets.own_labels import labelled_documents as labelled_documents
    from sparse_probing.datasets.own_labels import labelled_spans as labelled_spans
    from sparse_probing.datasets.own_labels import labelled_tags as labelled_tags
    from sparse_probing.datasets.sources import build_source as build_source
    from sparse_probing.datasets.templates import filled_templates as filled_templates
    from sparse_probing.datasets.unlabelled import every_token as every_token
    from sparse_probing.estimators.neuron_ranking import NeuronRanking as NeuronRanking
    from sparse_probing.estimators.path import SparseProbePath as SparseProbePath
    from sparse_probing.estimators.probe import SparseProbe as SparseProbe
    from sparse_probing.estimators.probe import SparseProbeRegressor as SparseProbeRegressor
    from sparse_probing.estimators.stability import selection_stability as selection_stability
    from sparse_probing.jobs.run import RunResult as RunResult
    from sparse_probing.jobs.run import run as run
    from sparse_probing.jobs.verify import VerifyResult as VerifyResult
    from sparse_probing.jobs.verify import verify as verify
    from sparse_probing.records import TextFormat as TextFormat
    from sparse_probing.selection.alternatives import fewest_columns as fewest_columns
    from sparse_probing.selection.alternatives import near_optimal as near_optimal
    from sparse_probing.selection.alternatives import without_each as without_each
    from sparse_probing.selection.certificate import check_certificate as check_certificate
    from sparse_probing.selection.certificate import read_certificate as read_certificate
    from sparse_probing.selection.certificate import write_certificate as write_certificate
    from sparse_probing.selection.exact import Limits as Limits
    from sparse_probing.selection.exact import best_subset as best_subset
    from sparse_probing.selection.problem import make_problem as make_problem

_HOMES = {
    "write_certificate": "sparse_probing.selection.certificate",
    "without_each": "sparse_probing.selection.alternatives",
    "read_certificate": "sparse_probing.selection.certificate",
    "near_optimal": "sparse_probing.selection.alternatives",
    "make_problem": "sparse_probing.selection.problem",
    "fewest_columns": "sparse_probing.selection.alternatives",
    "check_certificate": "sparse_probing.selection.certificate",
    "best_subset": "sparse_probing.selection.exact",
    "Limits": "sparse_probing.selection.exact",
    "selection_stability": "sparse_probing.estimators.stability",
    "SparseProbe": "sparse_probing.estimators.probe",
    "SparseProbeRegressor": "sparse_probing.estimators.probe",
    "SparseProbePath": "sparse_probing.estimators.path",
    "NeuronRanking": "sparse_probing.estimators.neuron_ranking",
    "extract": "sparse_probing.activations.extract",
    "find_units": "sparse_probing.activations.extract",
    "load_model": "sparse_probing.activations.models",
    "wrap_model": "sparse_probing.activations.models",
    "every_token": "sparse_probing.datasets.unlabelled",
    "Document": "sparse_probing.datasets.labelled_text",
    "LabelledText": "sparse_probing.datasets.labelled_text",
    "Span": "sparse_probing.datasets.labelled_text",
    "build_source": "sparse_probing.datasets.sources",
    "filled_templates": "sparse_probing.datasets.templates",
    "labelled_by": "sparse_probing.datasets.own_labels",
    "labelled_documents": "sparse_probing.datasets.own_labels",
    "labelled_spans": "sparse_probing.datasets.own_labels",
    "labelled_tags": "sparse_probing.datasets.own_labels",
    "read_conllu": "sparse_probing.datasets.conllu",
    "read_dataset_folder": "sparse_probing.datasets.dataset_folder",
    "write_dataset_folder": "sparse_probing.datasets.dataset_folder",
    "TextFormat": "sparse_probing.records",
    "RunConfig": "sparse_probing.config",
    "VerifyConfig": "sparse_probing.config",
    "document_level_text": "sparse_probing.datasets.labelled_text",
    "RunResult": "sparse_probing.jobs.run",
    "run": "sparse_probing.jobs.run",
    "VerifyResult": "sparse_probing.jobs.verify",
    "verify": "sparse_probing.jobs.verify",
}
__all__ = [
    "Document",
    "LabelledText",
    "Limits",
    "NeuronRanking",
    "RunConfig",
    "RunResult",
    "Span",
    "SparseProbe",
    "SparseProbePath",
    "SparseProbeRegressor",
    "TextFormat",
    "VerifyConfig",
    "VerifyResult",
    "best_subset",
    "build_source",
    "check_certificate",
    "document_level_text",
    "every_token",
    "extract",
    "fewest_columns",
    "filled_templates",
    "find_units",
    "labelled_by",
    "labelled_documents",
    "labelled_spans",
    "labelled_tags",
    "load_model",
    "make_problem",
    "near_optimal",
    "read_certificate",
    "read_conllu",
    "read_dataset_folder",
    "run",
    "selection_stability",
    "verify",
    "without_each",
    "wrap_model",
    "write_certificate",
    "write_dataset_folder",
]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: torch takes seconds, `sprobe --help` must not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparse_probing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
