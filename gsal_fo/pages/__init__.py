"""Everything that a person looks at outside the App: reports, audit, graph and candidate pages, plots."""
