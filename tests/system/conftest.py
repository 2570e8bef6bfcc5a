from tests.system.house import house

__all__ = ["house"]
