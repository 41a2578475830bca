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


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        ({}, r"give the table's name, as table: NAMESPACE\.NAME"),
        ({"table": "labels"}, "give the table's name"),
        ({"table": "a..labels"}, "give the table's name"),
        ({"table": "a.b", "token": "t"}, r"token holds a secret.*~/\.pyiceberg\.yaml.*PYICEBERG_CATALOG__DEFAULT__TOKEN"),
        ({"table": "a.b", "name": "x-y", "s3.secret-access-key": "k"}, "PYICEBERG_CATALOG__X_Y__S3__SECRET_ACCESS_KEY"),
        ({"table": "a.b", "credential": "id:secret"}, "credential holds a secret"),
        ({"table": "a.b", "header.Authorization": "Basic x"}, r"header\.Authorization holds a secret"),
        ({"table": "a.b", "uri": "postgresql+psycopg2://user:pass@host/db"}, "uri holds a secret"),
        ({"table": "a.b", "uri": "postgresql://host/db?user=u&password=p"}, "uri holds a secret"),
        ({"table": "a.b", "header.X-Api-Key": "k"}, "X-Api-Key holds a secret"),
    ],
)
def test_a_catalog_without_a_name_or_with_a_secret_is_refused(catalog: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutputConfig(path="out", table="iceberg", catalog=catalog)


def test_a_catalog_is_of_an_iceberg_table() -> None:
    catalog = {"table": "a.b.c", "type": "rest", "uri": "https://user@host/v1", "oauth2-server-uri": "https://host/tokens"}
    assert OutputConfig(path="out", table="iceberg", catalog=catalog).catalog == catalog
    for table in ("none", "delta"):
        with pytest.raises(ValueError, match=r"catalog has no effect without output\.table: iceberg"):
            OutputConfig(path="out", table=table, catalog=catalog)


@pytest.mark.parametrize("days", [float("inf"), 1e6])  # before the first year there is
def test_versions_are_kept_for_a_century_at_most(days: float) -> None:
    with pytest.raises(ValueError, match="less than or equal to 36500"):
        OutputConfig(path="out", keep_versions_days=days)
