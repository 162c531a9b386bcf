"""Drawing of labelled scenes: dice, noise, shapes, materials, canvas, scenes, camera."""
