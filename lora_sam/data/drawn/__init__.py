"""Drawing of labelled scenes: dice, noise, shapes, materials, canvas, layout, details, scenes, camera."""
