"""What people read and look at: reports, comparisons, figures, and the catalogue of metrics."""
