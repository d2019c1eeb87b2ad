"""What the model's loss does when neurons are changed, in class, out of class and beside placebos."""
