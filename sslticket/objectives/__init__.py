"""What a network learns while tickets are searched; one objective a file."""
