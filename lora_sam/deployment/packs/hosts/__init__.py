"""Programs that go into packs as they are: they import nothing of this package."""
