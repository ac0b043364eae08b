"""Tables, plots and the HTML page: all that a reader sees, from run.json files and the scores beside them."""
