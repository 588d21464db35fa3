"""How sides are cut into tiles, and that what the kernels do is the transpose of what it says."""

import itertools

import pytest
import torch

from fovea.models import kernels
from fovea.models.sides import LARGEST, LARGEST_ROUNDED, cut
from fovea.models.tiles import Grid, Scale, grid


@pytest.mark.parametrize("most", [LARGEST, LARGEST_ROUNDED])
@pytest.mark.parametrize("pool", [False, True])
def test_tiles_cover_a_side_with_the_fewest_products(most, pool):
    sizes = range(2, most + 1, 2) if pool else range(1, most + 1)
    for outputs in range(2, 70, 2) if pool else range(1, 70):
        side = cut(outputs, most, pool)
        assert side.num_large * side.large + side.num_small * side.small >= outputs
        assert side.large in sizes
        assert not side.num_small or (side.small in sizes and side.small < side.large)
        assert [side.start(tile) for tile in range(side.num_tiles)] == [
            *range(0, side.num_large * side.large, side.large),
            *(side.num_large * side.large + side.small * number for number in range(side.num_small)),
        ]
        products = side.num_large * (side.large + 2) + side.num_small * (side.small + 2)
        for size in sizes:
            assert products <= -(-outputs // size) * (size + 2)


def test_pixels_are_multiplied_on_their_way():
    torch.manual_seed(0)
    tiling, by = grid(5, 6, False, False), torch.rand(3 * 7)
    pixels, rows = torch.randn(5, 6, 3, 7), range(2)
    weighed = pixels * by.view(3, 7)
    torch.testing.assert_close(tiling.peaks("gather", pixels, None, 2, by), tiling.peaks("gather", weighed, None, 2))
    room, plain, multiplied = tiling.room(rows, 3, 7, 0), torch.zeros_like(pixels), torch.zeros_like(pixels)
    tiling.gather(pixels, room, rows)
    tiling.add(room, plain, rows)
    tiling.add(room, multiplied, rows, Scale(by=by))
    torch.testing.assert_close(multiplied, plain * by.view(3, 7))


def test_14_pooled_in_bfloat16_is_three_tiles_of_4_and_one_of_2():
    assert cut(14, 4, True) == (4, 3, 2, 1)
    assert cut(7, 4, False) == (4, 1, 3, 1)
    assert cut(14, 8, False) == (7, 2, 0, 0)


@pytest.mark.parametrize("size", [(7, 14), (6, 6), (1, 9)])
def test_reading_and_writing_have_their_transposes(size):
    """<spread(g), t> = <g, collect(t)> and <gather(x), t> = <x, add(t)>, for every part of the rows."""
    torch.manual_seed(0)
    tiling = grid(*size, False, False)
    count, channels = 3, 7
    pixels, gradient, collected, added = (torch.zeros(*size, count, channels) for _ in range(4))
    pixels.normal_(), gradient.normal_(), added.fill_(torch.nan)
    spread = gathered = 0.0
    for row in range(tiling.down.num_tiles):
        rows = range(row, row + 1)
        given, found = (tiling.room(rows, count, channels, slot) for slot in (0, 1))
        for tensor in given.tiles:
            tensor.normal_()
        tiling.spread(gradient, None, found, rows)
        spread += sum((a * b).sum() for a, b in zip(given.tiles, found.tiles, strict=True))
        tiling.collect(given, collected, None, rows)
        tiling.gather(pixels, found, rows)
        gathered += sum((a * b).sum() for a, b in zip(given.tiles, found.tiles, strict=True))
        tiling.add(given, added, rows)
    torch.testing.assert_close(spread, (gradient * collected).sum(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gathered, (pixels * added).sum(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(9, 15), (3, 8)])
def test_adding_tiles_of_a_pooling_leaves_no_pixel_as_it_was(size):
    """Where the last row or column is odd, a tile reads it still."""
    tiling, pixels = grid(*(side // 2 * 2 for side in size), False, True), torch.full((*size, 2, 8), torch.nan)
    for row in range(tiling.down.num_tiles):
        room = tiling.room(range(row, row + 1), 2, 8, 0)
        for tensor in room.tiles:
            tensor.fill_(1.0)
        tiling.add(room, pixels, range(row, row + 1))
    assert pixels.isfinite().all()


def test_the_shares_are_all_points_once():
    for size, half, pool in itertools.product([(7, 14), (6, 6), (8, 8)], (False, True), (False, True)):
        tiling = grid(*size, half, pool)
        seen = torch.zeros(tiling.down.num_points, tiling.across.num_points)
        for share in tiling.shares():
            seen[share] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("kind", ["gather", "spread"])
def test_peaks_are_the_largest_values_at_each_point_of_the_first_images(kind):
    torch.manual_seed(0)
    tiling, pixels = grid(7, 14, False, False, in_bytes=True), torch.randn(7, 14, 5, 16)
    rows, few = range(tiling.down.num_tiles), pixels[:, :, :3].contiguous()
    room = tiling.room(rows, 3, 16, 0)
    tiling.gather(few, room, rows) if kind == "gather" else tiling.spread(few, None, room, rows)
    expected = torch.zeros(tiling.num_points)
    for places, tiles in zip(tiling.places, room.tiles, strict=True):
        expected[places] = tiles.abs().amax((1, 2))
    torch.testing.assert_close(tiling.peaks(kind, pixels, None, num_images=3), expected, rtol=0, atol=0)


def test_room_is_the_same_again_until_its_memory_has_to_grow():
    tiling = Grid(6, 6, False, False)
    first = tiling.room(range(1), 2, 4, "grows")
    assert tiling.room(range(1), 2, 4, "grows") is first
    tiling.room(range(1), 200, 4, "grows")
    moved = tiling.room(range(1), 2, 4, "grows")
    assert moved is not first
    assert moved.tiles[0].shape == first.tiles[0].shape


@pytest.mark.parametrize("count", [64, 125, 128])
def test_points_lie_an_odd_number_of_lines_apart_so_that_they_do_not_share_a_set_of_the_cache(count):
    tiling = Grid(15, 15, False, False, in_bytes=True)
    for dtype in (torch.uint8, torch.float32):
        for tiles in tiling.room(range(1), count, 64, 0, dtype, padded=True).tiles:
            assert tiles.stride(0) >= tiles[0].numel()
            lines, rest = divmod(tiles.stride(0) * dtype.itemsize, 64)
            assert (lines % 2, rest) == (1, 0)


@pytest.mark.parametrize("channels", [8, 7])  # vectors, and one number at a time
def test_bfloat16_is_rounded_as_pytorch_rounds_with_and_without_an_instruction_for_it(channels, monkeypatch):
    """What lies in the tiles is what float32 tiles hold, rounded; some weights lie halfway between two numbers."""
    torch.manual_seed(0)
    pixels = torch.randn(4, 4, 6, channels).bfloat16()
    weight = 1 + torch.arange(channels * 63).view(channels, 7, 3, 3) / 256
    found = []
    for has_bf16 in {kernels.has_bf16(), False}:
        monkeypatch.setattr(kernels, "has_bf16", lambda has_bf16=has_bf16: has_bf16)
        tiling = Grid(4, 4, True, False)
        tiles = tiling.room(range(tiling.down.num_tiles), 6, channels, 0)
        tiling.gather(pixels, tiles, range(tiling.down.num_tiles))
        found.append([tile.clone() for tile in tiles.tiles])
        written = torch.empty_like(pixels)
        tiling.collect(tiles, written, None, range(tiling.down.num_tiles))
        found[-1] += [written, *tiling.at_points(weight)]
    for tiles in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], tiles, strict=True))
    whole = Grid(4, 4, False, False)
    exact = whole.room(range(whole.down.num_tiles), 6, channels, 0)
    whole.gather(pixels.float(), exact, range(whole.down.num_tiles))
    assert whole.down == tiling.down
    for rounded, value in ((found[0][0], exact.tiles[0]), (found[0][-1], whole.at_points(weight)[0])):
        torch.testing.assert_close(rounded, value.bfloat16(), rtol=0, atol=0)
