"""What the App shows: forms, live views, previews, coverage, saved views, the plugin folder."""
