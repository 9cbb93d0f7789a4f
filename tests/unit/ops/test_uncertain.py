import torch

from tagmask.ops.uncertain import pick_uncertain, token_codes, uncertain_windows


def scene(batch=1, size=(12, 14)):
    """Foreground all over, with a strip of ignored tokens."""
    labels = torch.full((batch, *size), 3)
    labels[:, 5, 4:9] = 255
    return labels


def by_hand(labels):
    code, found = token_codes(labels), []
    for image in range(labels.shape[0]):
        for a in range(labels.shape[1] - 6):
            for d in range(labels.shape[2] - 6):
                window = code[image, a : a + 6, d : d + 6].float()
                if code[image, a + 3, d + 3] == 1 and window.mean() >= 1.2:
                    found.append([image, a, d])
    return found


def test_windows_are_those_of_the_loop():
    torch.manual_seed(0)
    labels = torch.tensor([0, 2, 3, 255])[torch.randint(0, 4, (3, 13, 12))]
    assert uncertain_windows(labels).nonzero().tolist() == by_hand(labels)
    assert by_hand(labels)


def test_few_windows_are_all_taken_and_filled_up_with_foreground():
    picked = pick_uncertain(scene())
    assert picked[:5].tolist() == by_hand(scene()) == [[0, 2, d] for d in range(1, 6)]
    assert len(picked) == 5  # (8 - 5) // 4 = 0 extra
    labels = scene()
    labels[0, 5, 6:9] = 3
    assert len(pick_uncertain(labels)) == 2 + 1


def test_many_windows_are_drawn_with_the_seed():
    labels = torch.full((2, 16, 16), 1)
    labels[:, ::4] = 255
    torch.manual_seed(3)
    first = pick_uncertain(labels)
    torch.manual_seed(3)
    assert torch.equal(first, pick_uncertain(labels))
    assert (first[:, 0] == torch.tensor([0] * 8 + [1] * 8)).all()
    centre = pick_uncertain(labels, "centre")
    assert (labels[tuple(centre.T)] == 255).all()


def test_no_foreground_still_gives_tokens_and_tiny_grids_none():
    assert len(pick_uncertain(torch.full((2, 9, 9), 255))) == 4
    assert pick_uncertain(torch.full((2, 6, 30), 255)).shape == (0, 3)
