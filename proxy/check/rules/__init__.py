"""What facts mean. Each module names the facts it needs and turns them into lines of the report; it reads nothing."""
