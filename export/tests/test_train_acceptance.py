"""Words of held-out identities are used. It takes minutes, so only with `-m slow`; its parts have quick tests too."""

import pytest

pytest.importorskip("diffusers", reason="training needs the packages of requirements-reference.txt")


@pytest.mark.slow
def test_a_mapper_learns_identities_that_it_was_not_trained_on(tmp_path):
    from stellar_train.acceptance import accept

    assert accept(tmp_path) == 0
