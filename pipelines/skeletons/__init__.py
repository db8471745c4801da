"""What a new model starts from: templates, and the way from a modular file to the flat ones it stands for."""
