"""What each part of an audit needs to be made: one module a part."""
