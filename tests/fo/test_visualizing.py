"""Maps and similarity search from the stored embeddings, through FiftyOne's own brain."""

import numpy as np
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo import runs
from gsal_fo.run_folder import embeddings, shards


def stored(dataset):
    folder = runs.load(dataset).config.run_dir
    return {row["id"]: row for row in shards.iter_rows(shards.Path(folder), "concepts")}


def test_images_and_proposals_get_a_map_and_the_nearest_is_found(scored):
    keys = gfo.visualize(scored, method="umap", seed=1)
    assert keys == ["gsal_map_images", "gsal_similar_images", "gsal_map_proposals", "gsal_similar_proposals"]
    rows = stored(scored)
    ids = scored.exists("gsal_proposals").values("id")
    images = scored.load_brain_results("gsal_map_images")
    assert set(images.sample_ids) == set(ids) and np.isfinite(images.points).all() and images.points.shape == (9, 2)
    boxes = scored.load_brain_results("gsal_map_proposals")
    assert set(boxes.label_ids) == set(scored.values("gsal_proposals.detections.id", unwind=True))
    # Each vector is its own image's, and FiftyOne ranks by the cosine of the vectors less their mean.
    index = scored.load_brain_results("gsal_similar_images")
    vectors, owners, _ = index.get_embeddings()
    assert all(np.array_equal(v, rows[i]["image"]) for v, i in zip(vectors, owners, strict=True))
    crops, _, labels = scored.load_brain_results("gsal_similar_proposals").get_embeddings()
    whose = {
        d.id: (s.id, k) for s in scored.exists("gsal_proposals") for k, d in enumerate(s.gsal_proposals.detections)
    }
    for vector, label in zip(crops, labels, strict=True):
        owner, k = whose[label]
        assert np.array_equal(vector, rows[owner]["embeddings"].reshape(-1, rows[owner]["dim"])[k])
    for query in ids:
        nearest = scored.sort_by_similarity(query, k=4, brain_key="gsal_similar_images").values("id")
        centered = {i: rows[i]["image"].astype(np.float64) for i in ids}
        mean = np.mean(list(centered.values()), axis=0)
        unit = {i: (v - mean) / np.linalg.norm(v - mean) for i, v in centered.items()}
        cosine = {i: float(unit[query] @ unit[i]) for i in ids}
        best = sorted(cosine.values(), reverse=True)[:4]  # values, since images may be equally near
        assert [cosine[i] for i in nearest] == pytest.approx(best, abs=1e-5) and len(set(nearest)) == 4


def test_called_again_it_replaces_its_own_and_no_other_run(scored):
    gfo.visualize(scored, method="pca")
    first = scored.load_brain_results("gsal_map_images").points
    gfo.visualize(scored.limit(9), method="pca", limit=5)
    again = scored.load_brain_results("gsal_map_images")
    best = scored.exists("gsal_proposals").sort_by("gsal_score", reverse=True).limit(5)
    assert len(again.points) <= 5 < len(first) and set(again.sample_ids) <= set(scored.limit(9).values("id"))
    assert scored.list_brain_runs() == [
        "gsal_map_images", "gsal_map_proposals", "gsal_similar_images", "gsal_similar_proposals"
    ]  # fmt: skip
    gfo.visualize(scored, method="pca", limit=5)
    assert set(scored.load_brain_results("gsal_map_images").sample_ids) == set(best.values("id"))


def test_an_image_whose_proposals_a_person_deleted_is_left_out(scored):
    sample = scored.exists("gsal_proposals").first()
    sample.gsal_proposals.detections = sample.gsal_proposals.detections[1:]
    sample.save()
    gfo.visualize(scored, method="pca")
    assert sample.id not in scored.load_brain_results("gsal_map_images").sample_ids


def test_what_cannot_be_drawn_is_a_sentence(scored, dataset, tmp_path):
    with pytest.raises(ValueError, match="run score first"):
        gfo.visualize(dataset)
    with pytest.raises(ValueError, match="at least 5 images with embeddings; found 2"):
        gfo.visualize(scored.exists("gsal_proposals").limit(2))
    with pytest.raises(ValueError, match="umap, pca; got 'tsne'"):
        gfo.visualize(scored, method="tsne")
    with pytest.raises(ValueError, match="at least 5; got 0"):
        gfo.visualize(scored, limit=0)
    with pytest.raises(shards.ShardError, match="the detector assigned"):
        embeddings.read(tmp_path)
    shards.write_part(tmp_path, "concepts", [{"id": "a", "role": "pool", "embeddings": [1.0], "dim": 1}], digest="d")
    with pytest.raises(shards.ShardError, match="an older version made it"):
        embeddings.read(tmp_path)
