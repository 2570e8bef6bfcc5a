"""Putting a shop's export into the database."""

from pathlib import Path

from contracts.errors import Misconfigured
from ops.settings import Settings
from ops.wiring import database
from state.shop_files import load_shop, read_export


async def load_directory(directory: Path, tenant: str | None, settings: Settings) -> dict[str, int]:
    """Load an export directory as the tenant's shop; returns how many of each were loaded."""
    shop_id = settings.shop_of(known_tenant(tenant, settings))
    export = read_export(directory)
    async with database(settings) as pool:
        return await load_shop(pool, shop_id, export)


def known_tenant(tenant: str | None, settings: Settings) -> str:
    """The tenant meant. Raises Misconfigured: tenants are named in the settings, and this is none of them."""
    if settings.tenants and tenant not in settings.tenants:
        raise Misconfigured(f"--tenant must name one of SWITCHYARD_TENANTS: {', '.join(settings.tenants)}")
    return tenant or ""
