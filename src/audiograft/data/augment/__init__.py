"""What is done to clips so that a model meets more than was recorded: noise, rooms, speed, level, codecs. Knows no model."""
