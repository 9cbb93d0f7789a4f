"""The local web page (optional extra ``app``); only `page` and `server` need Gradio."""
