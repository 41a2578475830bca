"""Columns that labeling adds."""

import pytest

from pipeline_ops.schema.output_columns import OutputConfig


def test_added_columns_leave_out_what_is_not_asked_for() -> None:
    few = OutputConfig(path="out").added_columns()
    many = OutputConfig(path="out", scores=True, logits=True, scores_column="all_scores").added_columns()
    assert {"scores", "logits"}.isdisjoint(few.values())
    assert set(many.values()) - set(few.values()) == {"all_scores", "logits"}


def test_partition_by_label_follows_the_label_columns_name() -> None:
    output = OutputConfig(path="out", label_name="class", partition_by=("label", "year"))
    assert output.partition_columns() == ("class", "year")


def test_label_column_is_an_earlier_key_of_the_labels_name() -> None:
    assert OutputConfig.model_validate({"path": "out", "label_column": "class"}) == OutputConfig(path="out", label_name="class")
    with pytest.raises(ValueError, match=r"output\.label_name"):
        OutputConfig.model_validate({"path": "out", "label_column": "class", "label_name": "class"})
