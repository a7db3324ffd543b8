"""Files to tensors: video files, input transforms, data set annotations, generated data."""
