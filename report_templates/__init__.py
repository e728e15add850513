"""Templates, style sheet and fonts of the audit report; read by ``unaudit.report.html``."""
